"""The fairway command: runs a subcommand and prints its errors.

A new subcommand is one line in ``COMMANDS``. Its module is imported when the subcommand is called.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

from lambdas.channel.errors import FairwayError, InvalidNameError, UsageError
from scripts.fairway.terminal import print_error

COMMANDS: Final[dict[str, tuple[str, str]]] = {  # {name: (module:command, summary)}
    "publish": ("scripts.fairway.publish:publish", "Check packages, upload them, and wait for the indexer."),
    "status": ("scripts.fairway.status:status", "Show the status of uploads."),
    "rejected": ("scripts.fairway.rejected:rejected", "List, show and retry rejected uploads."),
    "yank": ("scripts.fairway.yank:yank", "Remove artifacts from the index; they stay downloadable."),
    "unyank": ("scripts.fairway.yank:unyank", "Add yanked artifacts to the index again."),
    "verify": ("scripts.fairway.verify:verify", "Check that the index and the bucket agree."),
    "reconcile": ("scripts.fairway.reconcile:reconcile", "Repair an index by listing the bucket."),
    "rebuild": ("scripts.fairway.rebuild:rebuild", "Rebuild an index from its artifacts."),
    "index": ("scripts.fairway.index:index", "Index a directory, without AWS."),
    "token": ("scripts.fairway.tokens:token", "Create, list, rotate and revoke tokens."),
    "channel": ("scripts.fairway.channels:channel", "List channels, and make them public or private."),
    "issuer": ("scripts.fairway.issuers:issuer", "Manage trusted issuers of identity tokens (OIDC)."),
    "audit": ("scripts.fairway.audit:audit", "Show who changed access, when and how."),
}

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


class LazyGroup(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


_HELP: Final = """Manage a serverless conda channel.

The bucket and the URL are outputs of 'cdk deploy':

\b
  export FAIRWAY_BUCKET=fairway-team-123456789012-eu-central-1
  export FAIRWAY_URL=https://d111111abcdef8.cloudfront.net

AWS credentials come from the usual places (AWS_PROFILE, ~/.aws, AWS_ENDPOINT_URL, …).

\b
Exit codes:
  0    success
  1    failed: rejected, timed out, verification failed, or access denied
  2    usage error: invalid option, name or pattern, or nothing matches it
  130  interrupted
"""


@click.group(
    cls=LazyGroup, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="fairway-channel")
def fairway() -> None:
    """Manage a serverless conda channel."""


def main() -> None:
    """Run the command and exit with its exit code."""
    try:
        sys.exit(fairway.main(prog_name="fairway", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.UsageError as error:
        place = error.ctx.command_path if error.ctx else "fairway"
        print_error(_lower_first(error.format_message()).rstrip("."), f"see '{place} --help'")
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        print_error(error.format_message())
        sys.exit(EXIT_FAILED)
    except (UsageError, InvalidNameError) as error:  # an invalid name is an invalid argument
        print_error(str(error), error.hint)
        sys.exit(EXIT_USAGE)
    except FairwayError as error:
        print_error(str(error), error.hint)
        sys.exit(EXIT_FAILED)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the pipe's reader (head, less) has exited
        sys.exit(EXIT_FAILED)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
