"""The web UIs that can be served: where each is found, and its page with nothing in it that comes from outside."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Final, NamedTuple

from matyan.errors import ConfigurationError

TITLE: Final = "Matyan"
TEMPLATE: Final = "index-template.html"

_HEAD: Final = '<meta charset="utf-8"/>'
_OUTSIDE_SCRIPT: Final = re.compile(r'<script[^>]*\ssrc="https?://[^"]*"[^>]*></script>')
_OUTSIDE_LINK: Final = re.compile(r'<link[^>]*\shref="https?://[^"]*"[^>]*/?>')
_ANALYTICS: Final = re.compile(r"<script>(?:(?!</script>).)*window\.analytics(?:(?!</script>).)*</script>", re.DOTALL)
_IDLE_PRELOAD: Final = re.compile(r'<link rel="preload" as="script"[^>]*/>')
"""Made for another credentials mode than the script's use, so browsers load the editor twice and warn about it."""
_TITLE: Final = re.compile(r"<title>[^<]*</title>")


class Interface(NamedTuple):
    """A released web UI: a distribution on PyPI that holds a page template and static files."""

    name: str
    distribution: str
    directory: str
    """The static files, from where the distribution is installed."""
    repository: str
    """Where its releases are published: `owner/name` on GitHub."""
    expressions: Mapping[str, str]
    """Quoted variables of the template -> the JavaScript that stands for them; `{base_path}` is filled in."""
    remedy: str
    """What to do when it is not here."""


INTERFACES: Final[Mapping[str, Interface]] = {
    "aim": Interface(
        name="Aim UI",
        distribution="aim-ui",
        directory="aim_ui/build",
        repository="aimhubio/aim",
        expressions={},
        remedy="run `pip install aim-ui==3.29.1`, or set http.ui to none (--no-ui)",
    ),
    "matyan": Interface(
        name="Matyan UI",
        distribution="matyan-ui",
        directory="matyan_ui/static",
        repository="4gt-104/matyan-core",
        # It wants an absolute address of the API, which only the browser knows for sure when a proxy stands between.
        expressions={
            '"{{ api_host_base }}"': 'window.location.origin+"{base_path}"',
            '"{{ api_base_path }}"': '"/api/v1"',
            '"{{ api_auth_token }}"': '""',
        },
        remedy=(
            "run `pip install --no-deps --ignore-requires-python --target matyan-ui matyan-ui==0.3.2` and set "
            "http.ui_path (--ui-path) to the directory matyan-ui that this makes"
        ),
    ),
}
"""Settings name -> web UI."""


class Bundle(NamedTuple):
    """A web UI that is here."""

    interface: Interface
    build: Path
    version: str


def find_bundle(name: str, path: str = "") -> Bundle:
    """Return the web UI `name` of `INTERFACES`, from the unpacked wheel in the directory `path` or as installed.

    Raises:
        ConfigurationError: it is not there; the text says how to get it.
    """
    interface = INTERFACES[name]
    places = [str(Path(path).expanduser().absolute())] if path else sys.path
    for found in distributions(name=interface.distribution, path=places):
        build = Path(str(found.locate_file(interface.directory)))
        if (build / TEMPLATE).is_file():
            return Bundle(interface, build, found.version)
    where = f"http.ui_path is {path}, which holds no unpacked wheel of" if path else "there is no package"
    raise ConfigurationError(f"{where} {interface.distribution}; {interface.remedy}")


def render(bundle: Bundle, *, base_path: str) -> str:
    """Return the page: the template with its variables, without third parties, with our shim and title."""
    page = (bundle.build / TEMPLATE).read_text("utf-8")
    for unwanted in (_OUTSIDE_SCRIPT, _OUTSIDE_LINK, _ANALYTICS, _IDLE_PRELOAD):
        page = unwanted.sub("", page)
    page = _TITLE.sub(f"<title>{TITLE}</title>", page)
    page = page.replace(_HEAD, f"{_HEAD}<script>{_shim(bundle)}</script>", 1)
    for variable, expression in bundle.interface.expressions.items():
        page = page.replace(variable, expression.replace("{base_path}", base_path))
    return page.replace("{{ base_path }}", base_path)


def _shim(bundle: Bundle) -> str:
    text = Path(__file__).with_name("ui_shim.js").read_text("utf-8")
    interface = bundle.interface
    words = {"__NAME__": interface.name, "__VERSION__": bundle.version, "__REPOSITORY__": interface.repository}
    for word, value in words.items():
        text = text.replace(word, value)
    return text
