"""The fairway command: runs a subcommand and prints its errors.

A new subcommand is one line in ``COMMANDS``. Its module is imported when the subcommand is called.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from dataclasses import dataclass
from typing import Final

import click

from lambdas.channel.errors import (
    AccessDeniedError,
    FairwayError,
    InvalidNameError,
    RejectedError,
    TransientError,
    UsageError,
)
from scripts.fairway.terminal import print_error, print_json_error

COMMANDS: Final[dict[str, tuple[str, str]]] = {  # {name: (module:command, summary)}
    "publish": ("scripts.fairway.publish:publish", "Check packages, upload them, and wait for the indexer."),
    "status": ("scripts.fairway.status:status", "Show the status of uploads."),
    "list": ("scripts.fairway.catalog:list_artifacts", "List the artifacts in the index of a channel."),
    "show": ("scripts.fairway.catalog:show", "Show artifacts: state, record, URL, and who yanked them and why."),
    "copy": ("scripts.fairway.copy:copy", "Copy artifacts to another channel, inside S3."),
    "move": ("scripts.fairway.copy:move", "Move artifacts to another channel, inside S3."),
    "remove": ("scripts.fairway.remove:remove", "Delete artifacts; 'yank' keeps them downloadable."),
    "rejected": ("scripts.fairway.rejected:rejected", "List, show and retry rejected uploads."),
    "yank": ("scripts.fairway.yank:yank", "Remove artifacts from the index; they stay downloadable."),
    "unyank": ("scripts.fairway.yank:unyank", "Add yanked artifacts to the index again."),
    "verify": ("scripts.fairway.verify:verify", "Check that the index and the bucket agree."),
    "reconcile": ("scripts.fairway.reconcile:reconcile", "Repair an index by listing the bucket."),
    "rebuild": ("scripts.fairway.rebuild:rebuild", "Rebuild an index from its artifacts."),
    "index": ("scripts.fairway.index:index", "Index a directory, without AWS."),
    "dead-letters": (
        "scripts.fairway.dead_letters:dead_letters",
        "List, redrive and drop messages that failed for a day.",
    ),
    "token": ("scripts.fairway.tokens:token", "Create, list, rotate and revoke tokens."),
    "channel": ("scripts.fairway.channels:channel", "List channels, and make them public or private."),
    "issuer": ("scripts.fairway.issuers:issuer", "Manage trusted issuers of identity tokens (OIDC)."),
    "use": ("scripts.fairway.use:use", "Choose the deployment that commands manage, or list the known ones."),
    "whoami": (
        "scripts.fairway.whoami:whoami",
        "Show the AWS account, the role, the deployment and what the role may do.",
    ),
    "doctor": ("scripts.fairway.doctor.command:doctor", "Try everything that a deployment does, and clean up."),
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown name is compared with the table, for a suggestion."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


_HELP: Final = """Manage a serverless conda channel.

Choose a deployment once; its bucket and URL are read from the outputs of 'cdk deploy':

\b
  fairway use conda --region eu-central-1
  fairway whoami

AWS credentials come from the usual places (AWS_PROFILE, ~/.aws, AWS_ENDPOINT_URL, …).

\b
Exit codes:
  0    success
  1    failed: rejected, timed out, verification failed, access denied, or AWS unreachable
  2    usage error: invalid option, name or pattern, or nothing matches it
  130  interrupted

With --json, the result is one JSON document on stdout, and an error one on stderr:
{"error": {"code": "usage", "message": "…", "hint": "…"}}.
"""


@click.group(
    cls=LazyGroup, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="fairway-channel")
@click.option("--debug", is_flag=True, expose_value=False, help="Print the traceback of an error.")
def fairway() -> None:
    """Manage a serverless conda channel."""


def main() -> None:
    """Run the command and exit with its exit code."""
    try:
        sys.exit(fairway.main(prog_name="fairway", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the pipe's reader (head, less) has exited
        sys.exit(EXIT_FAILED)
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user who did not ask for it
        if _is_given("--debug"):
            traceback.print_exception(error)
        failure = describe_error(error)
        show = print_json_error if _is_given("--json") else print_error
        show(failure.message, failure.hint, code=failure.code)
        sys.exit(failure.exit_code)


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """An error as the user sees it."""

    code: str
    """For programs: usage, denied, rejected, unavailable, failed or bug."""
    message: str
    hint: str | None
    exit_code: int


def describe_error(error: Exception) -> Failure:
    """Return what the user sees of an error."""
    if isinstance(error, click.UsageError):
        place = error.ctx.command_path if error.ctx else "fairway"
        message = _lower_first(error.format_message()).rstrip(".")
        hint = f"see '{place} --help'"
        if isinstance(error, click.NoSuchOption) and place == "fairway":
            hint += "; the options of a command come after it"
        return Failure(code="usage", message=message, hint=hint, exit_code=EXIT_USAGE)
    if isinstance(error, click.ClickException):
        return Failure(code="failed", message=error.format_message(), hint=None, exit_code=EXIT_FAILED)
    from scripts.fairway.aws_errors import explain  # noqa: PLC0415 - '--help' does not need botocore

    explained = explain(error) or error
    if isinstance(explained, OSError):  # a file of the caller's, or a full disk
        place = f": {explained.filename!r}" if explained.filename else ""
        message = f"{_lower_first(explained.strerror or str(explained))}{place}"
        return Failure(code="failed", message=message, hint="check the file and the disk", exit_code=EXIT_FAILED)
    if not isinstance(explained, FairwayError):
        message = f"unexpected {type(explained).__name__}: {explained}"
        hint = "this is a bug of Fairway: repeat the command with --debug, and report what it prints"
        return Failure(code="bug", message=message, hint=hint, exit_code=EXIT_FAILED)
    return Failure(
        code=next(code for kind, code in _CODES if isinstance(explained, kind)),
        message=str(explained),
        hint=explained.hint,
        exit_code=EXIT_USAGE if isinstance(explained, UsageError | InvalidNameError) else EXIT_FAILED,
    )


_CODES: Final[tuple[tuple[type[FairwayError], str], ...]] = (
    (UsageError, "usage"),
    (InvalidNameError, "usage"),  # an invalid name is an invalid argument
    (AccessDeniedError, "denied"),
    (RejectedError, "rejected"),
    (TransientError, "unavailable"),
    (FairwayError, "failed"),
)


def _is_given(option: str) -> bool:
    """Tell whether an option is on the command line; click may have failed before it came to it."""
    arguments = sys.argv[1:]
    return option in arguments[: arguments.index("--")] if "--" in arguments else option in arguments


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
