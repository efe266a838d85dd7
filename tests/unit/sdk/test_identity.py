"""Users and secrets as they are written on a command line."""

import pytest

from heddle.api.errors import BadRequest
from heddle.api.meta import LocalObjectReference
from heddle.api.pod import EnvFromSource, EnvVar, EnvVarSource, KeySelector
from heddle.api.security import RunAs
from heddle.sdk import identity


def test_a_user_is_not_root_unless_it_is_0() -> None:
    assert identity.user("1000") == RunAs(run_as_user=1000, run_as_non_root=True)
    assert identity.user("1000:100") == RunAs(run_as_user=1000, run_as_group=100, fs_group=100, run_as_non_root=True)
    assert not identity.user("0").root_is_out


@pytest.mark.parametrize("text", ["", "me", "1000:", ":100", "-1", "1:2:3"])
def test_a_user_is_numbers(text: str) -> None:
    with pytest.raises(BadRequest, match="write UID or UID:GID in numbers"):
        identity.user(text)


def test_a_secret_is_a_variable_or_many() -> None:
    key = KeySelector(name="hub", key="token.txt")
    assert identity.secret("HF_TOKEN=hub:token.txt") == EnvVar(
        name="HF_TOKEN", value_from=EnvVarSource(secret_key_ref=key)
    )
    assert identity.secret("s3-access") == EnvFromSource(secret_ref=LocalObjectReference(name="s3-access"))


@pytest.mark.parametrize("text", ["", "A=", "A=hub", "A=hub:", "=hub:key", "1A=hub:key", "Hub"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="write NAME=SECRET:KEY"):
        identity.secret(text)
