"""config/*.toml hold every setting of a role with its default; `make docs` writes them anew."""

from __future__ import annotations

import os
from typing import Final

import pytest

from matyan.configuration import as_toml, load
from matyan.roles.process import check_shared
from matyan.roles.table import APART
from tests.support.markdown import ROOT

CONFIG: Final = ROOT / "config"
HEAD: Final = """\
# Every setting of `matyan {role}` with its default, for `matyan {role} --config FILE`; keep what you change.
# The roles share kv.uri, log.uri, blob.uri and secrets.keys: set these four, alike for all of them. Secrets are better
# given in the environment, such as MATYAN_SECRETS_KEYS.

"""
FILES: Final = {"local.toml": None, **{f"{role}.toml": role for role in APART}}


def written(role: str | None) -> str:
    """Return what the file of a role holds; that of None is for `matyan up`."""
    return ("" if role is None else HEAD.format(role=role)) + as_toml(load(environ={}, role=role))


@pytest.mark.parametrize(("name", "role"), FILES.items(), ids=list(FILES))
def test_a_file_holds_every_setting_with_its_default(name: str, role: str | None) -> None:
    if os.environ.get("MATYAN_WRITE_DOCS"):  # `make docs`
        (CONFIG / name).write_text(written(role))

    assert (CONFIG / name).read_text() == written(role), "run `make docs`"
    assert load(file=CONFIG / name, environ={}, role=role) == load(environ={}, role=role)


@pytest.mark.parametrize("role", APART)
def test_four_settings_make_a_file_complete(role: str) -> None:
    shared = {
        "MATYAN_KV_URI": "fdb:///etc/foundationdb/fdb.cluster",
        "MATYAN_LOG_URI": "kafka://kafka:9092",
        "MATYAN_BLOB_URI": "s3://matyan",
        "MATYAN_SECRETS_KEYS": "x" * 40,
    }

    check_shared(load(file=CONFIG / f"{role}.toml", environ=shared, role=role))
