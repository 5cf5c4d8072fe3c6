"""Connects an examination to AWS, or to an emulator."""

from importlib.metadata import version

from scripts.fairway.bucket import ListedStorage
from scripts.fairway.doctor.account import AwsAccount
from scripts.fairway.doctor.cleaning import CLEANING_SECONDS
from scripts.fairway.doctor.clock import CLOCK
from scripts.fairway.doctor.examination import Examination
from scripts.fairway.doctor.meter import Meter
from scripts.fairway.doctor.reader import HttpReader
from scripts.fairway.session import Session


def connect(session: Session, meter: Meter, *, timeout_seconds: float) -> Examination:
    """Return what the steps need.

    Raises:
        FairwayError: the bucket, the URL or the credentials are missing.
    """
    session.aws.events.register("before-send", meter.count_request)
    client = session.client("s3")
    account = AwsAccount(session.aws, session.require_bucket(), session.region)
    return Examination(
        bucket=ListedStorage(session.require_bucket(), client),
        reader=HttpReader(session.require_url(), meter),
        account=account,
        caller=session.caller,
        version=version("fairway-channel"),
        note=session.note,
        deadline=CLOCK.monotonic() + timeout_seconds - CLEANING_SECONDS,
    )
