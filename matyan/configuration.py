"""The settings read from their sources, and written again: defaults < those of a role < file < environment < flags.

All faults of a configuration are reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_type_hints

import msgspec

from matyan.errors import ConfigurationError
from matyan.settings import LOOPBACK_HOSTS, SECRET_CHARACTERS_MIN, SECTIONS, Secret, Section, Settings, describe, items

PREFIX: Final = "MATYAN_"
ROLE_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "serve": {"http": {"extra_ports": []}},
    "frontier": {"http": {"port": 53801, "extra_ports": []}},
    "ingest": {"http": {"port": 9101, "extra_ports": []}},
    "control": {"http": {"port": 9102, "extra_ports": []}},
}
"""Role -> where its defaults differ, so that all of them can stand on one machine."""

Values = dict[str, dict[str, Any]]


def load(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    role: str | None = None,
) -> Settings:
    """Read the settings: defaults < those of `role` < TOML `file` < environment < `flags` (`{"http.port": 1}`).

    Raises:
        ConfigurationError: with every fault, one a line, each with its path.
    """
    faults: list[str] = []
    values: Values = {name: {} for name in SECTIONS}
    _merge(values, ROLE_DEFAULTS.get(role or "", {}), faults)
    _merge(values, _from_file(file, faults), faults)
    _merge(values, _from_environment(os.environ if environ is None else environ, faults), faults)
    for path, value in (flags or {}).items():
        section, _, field = path.partition(".")
        values[section][field] = value
    sections = {name: _section(name, kind, values[name], faults) for name, kind in SECTIONS.items()}
    settings = msgspec.structs.replace(Settings(), **sections)
    faults += _contradictions(settings)
    if faults:
        raise ConfigurationError("\n".join(faults))
    return settings


def differences(settings: Settings) -> dict[str, Any]:
    """Return what differs from the defaults: `{"http.port": 1}`."""
    defaults = dict(items(Settings()))
    return {path: value for path, value in items(settings) if value != defaults[path]}


def as_toml(settings: Settings) -> str:
    """Return a settings file with every value and what it means; `config/local.toml` is the one of the defaults."""
    lines: list[str] = []
    for name, kind in SECTIONS.items():
        lines += ["", f"[{name}]"]
        for field in kind.__struct_fields__:
            value = getattr(getattr(settings, name), field)
            lines += [f"# {describe(kind, field)}", f"{field} = {_toml_value(value)}"]
    return "\n".join(lines[1:]) + "\n"


def _toml_value(value: Any) -> str:
    """Write text, numbers, booleans and lists of them: of these, JSON and TOML agree. A secret is not told."""
    return msgspec.json.encode(value, enc_hook=str).decode()


def _from_file(file: Path | None, faults: list[str]) -> Mapping[str, Any]:
    if file is None:
        return {}
    import tomllib  # noqa: PLC0415 - compiles patterns for 25 ms, and few servers have such a file

    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        faults.append(f"cannot read {file}: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        faults.append(f"{file} is no TOML: {error}")
    return {}


def _from_environment(environ: Mapping[str, str], faults: list[str]) -> Values:
    """Read MATYAN_SECTION_FIELD. Names of other sections belong to others (the SDK) and are left alone."""
    values: Values = {}
    if home := environ.get("MATYAN_HOME"):
        values["data"] = {"home": home}
    for variable, text in environ.items():
        section, _, field = variable.removeprefix(PREFIX).lower().partition("_")
        if not variable.startswith(PREFIX) or section not in SECTIONS:
            continue
        if field not in SECTIONS[section].__struct_fields__:
            faults.append(f"unknown setting {variable}: {section} has {', '.join(SECTIONS[section].__struct_fields__)}")
            continue
        hint = get_type_hints(SECTIONS[section])[field]
        values.setdefault(section, {})[field] = _listed(text) if "list" in str(hint) else text
    return values


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _merge(values: Values, more: Mapping[str, Any], faults: list[str]) -> None:
    for name, section in more.items():
        if name not in values:
            faults.append(f"Object contains unknown field `{name}` - at `$`")
        elif not isinstance(section, Mapping):
            faults.append(f"Expected `object`, got `{type(section).__name__}` - at `$.{name}`")
        else:
            values[name].update(section)


def _section(name: str, kind: type[Section], values: Mapping[str, Any], faults: list[str]) -> Section:
    """Convert field by field, since msgspec stops at the first fault."""
    hints = get_type_hints(kind, include_extras=True)
    found: dict[str, Any] = {}
    for field, value in values.items():
        if field not in kind.__struct_fields__:
            faults.append(f"Object contains unknown field `{field}` - at `$.{name}`")
            continue
        try:
            found[field] = msgspec.convert(value, hints[field], strict=False, dec_hook=_secret)
        except msgspec.ValidationError as error:
            text, _, below = str(error).partition(" - at `$")
            faults.append(f"{text} - at `$.{name}.{field}{below.rstrip('`')}`")
    return kind(**found)


def _secret(_: type, value: object) -> Secret:
    """Convert what msgspec knows no type of; it adds the path to the error."""
    if not isinstance(value, str):
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
    return Secret(value)


def _contradictions(settings: Settings) -> Iterator[str]:
    http = settings.http
    if http.host not in LOOPBACK_HOSTS and not http.allow_remote:
        yield (
            f"http.host is {http.host}, which others can reach, and there is no login yet: whoever reaches the port "
            "could read and delete everything. Keep 127.0.0.1 and use an SSH tunnel or a proxy with a login, or pass "
            "--insecure-allow-remote (setting http.allow_remote) where the network itself is trusted"
        )
    ports = [port for port in (http.port, *http.extra_ports) if port]
    if len(set(ports)) < len(ports):
        yield f"http.port and http.extra_ports name a port twice: {', '.join(map(str, ports))}"
    if bool(settings.s3.access_key) != bool(settings.s3.secret_key.reveal()):
        yield "s3.access_key and s3.secret_key belong together: set both or none"
    if any(len(key.reveal()) < SECRET_CHARACTERS_MIN for key in settings.secrets.keys):
        yield f"secrets.keys holds a secret of less than {SECRET_CHARACTERS_MIN} characters, which could be guessed"
    kafka = settings.kafka
    if kafka.security_protocol.startswith("SASL") and not (kafka.user and kafka.password.reveal()):
        yield f"kafka.security_protocol is {kafka.security_protocol}, which needs kafka.user and kafka.password"
