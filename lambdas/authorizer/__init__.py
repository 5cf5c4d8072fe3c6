"""The functions at the edge: decide who may read what, and set Cache-Control."""
