"""Commands to copy while the stack is running. Pure: text from a description."""

from __future__ import annotations

import shlex

from scripts.emulated.isolation import ACCESS_KEY, REGION, SECRET_KEY
from scripts.emulated.registry import Registration

CHANNEL = "demo"


def format_environment(running: Registration) -> str:
    """Return shell commands that set the variables of a running stack, for ``eval``."""
    variables = {
        "AWS_ENDPOINT_URL": running.endpoint,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "FAIRWAY_BUCKET": running.bucket,
        "FAIRWAY_URL": running.edge_url,
    }
    lines = ["unset AWS_PROFILE AWS_SESSION_TOKEN FAIRWAY_DEPLOYMENT"]
    lines += [f"export {name}={shlex.quote(value or '')}" for name, value in variables.items()]
    lines.append(f'export PATH={shlex.quote(running.tools or "")}:"$PATH"')
    return "\n".join(lines)


def format_instructions(running: Registration) -> str:
    """Return commands to copy for a running stack."""
    host = (running.edge_url or "").removeprefix("http://")
    channel = f"http://{host}/{CHANNEL}"
    return f"""\
# In another terminal. With these variables, aws, boto3, cdk and fairway use the emulator
# ('aws sqs' ignores the endpoint: add --endpoint-url $AWS_ENDPOINT_URL):
# In the checkout, this sets them: eval "$(./scripts/local env)"
{format_environment(running)}

# Publish. The first upload creates the channel; here it is {CHANNEL!r}:
aws s3 cp mypackage-1.0-0.conda s3://{running.bucket}/{CHANNEL}/noarch/
fairway status {CHANNEL}/noarch/mypackage-1.0-0.conda --wait

# Install. Every client reads the token from netrc; this one is for every channel of this stack:
(umask 077 && echo 'machine {host.partition(":")[0]} login token password {running.token}' >>~/.netrc)
conda install --override-channels -c {channel} mypackage
mamba install --override-channels -c {channel} mypackage
pixi init --channel {channel} myproject && cd myproject && pixi add mypackage

# Inspect:
curl -u token:{running.token} http://{host}/{CHANNEL}/noarch/repodata.json
curl -i http://{host}/{CHANNEL}/noarch/repodata.json    # 401: no token
aws s3 ls --recursive s3://{running.bucket}/{CHANNEL}/

# Manage:
fairway token create alice --channel {CHANNEL}
fairway channel set-public {CHANNEL}
./scripts/local status
./scripts/local down
"""
