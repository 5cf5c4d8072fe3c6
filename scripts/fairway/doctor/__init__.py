"""``fairway doctor``: tries everything that a deployment does, in a channel of its own, and deletes it again.

``steps`` lists what is tried, the ``steps_`` modules try it, ``cleaning`` deletes, and ``run`` and
``report`` record and format the results. ``canaries`` builds the artifacts, ``examination`` is what steps
have at hand, and ``account`` and ``reader`` ask AWS and the channel's URL.
"""
