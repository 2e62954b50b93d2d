"""Pages: what stands on each, and the HTML around it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode

HERE = Path(__file__).parent
KIND = {"h1", "h2", "h3"}  # the headings that begin a section
UNREAD = {"script", "style", "noscript", "svg", "select"}  # what is no text to search in
LINK = re.compile(r"""(<a\b[^>]*?\bhref=)(["'])([^"'#?]*)([^"']*)\2""")


@dataclass
class Page:
    """One page of the site.

    Args:
        place: path in the site: ``notebooks/00_start_here.html``.
        body: HTML of its main part.
        source: path in the repository that it was made from; links to that path lead to this page.
        origin: its machine, versions and date; empty where nothing was measured.
        short: its name in the menu; by default its title.
    """

    place: str
    body: str
    source: str = ""
    origin: str = ""
    short: str = ""

    def __post_init__(self) -> None:
        self.body = self.body.replace("\N{PILCROW SIGN}</a>", "</a>")  # nbconvert's mark; the stylesheet has one
        self.texts = _Texts.of(self.body)
        self.title = next((text.title for text in self.texts if text.title), self.place)
        self.short = self.short or self.title

    @property
    def notebook(self) -> str:
        """The notebook to open for it; empty for other pages."""
        return self.source if self.source.endswith(".ipynb") else ""

    @cached_property
    def anchors(self) -> dict[str, str]:
        """``#the-verdict``, as GitHub names a heading -> ``#The-verdict``, as nbconvert does."""
        return {f"#{text.id.lower()}": f"#{text.id}" for text in self.texts if text.id}

    @property
    def sections(self) -> list[tuple[str, str]]:
        """The id and title of each second heading."""
        return [(text.id, text.title) for text in self.texts if text.level == "h2"]


@dataclass
class Text:
    """A heading, and the text up to the next one."""

    level: str
    id: str
    title: str = ""
    text: str = ""


class _Texts(HTMLParser):
    """The sections of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found = [Text("", "")]
        self._inside = self._unread = 0

    @classmethod
    def of(cls, body: str) -> list[Text]:
        parser = cls()
        parser.feed(body)
        for each in parser.found:
            each.title, each.text = " ".join(each.title.split()), " ".join(each.text.split())
        return [each for each in parser.found if each.title or each.text]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in KIND:
            self.found.append(Text(tag, dict(attrs).get("id") or ""))
            self._inside += 1
        self._unread += tag in UNREAD

    def handle_endtag(self, tag: str) -> None:
        self._inside -= tag in KIND
        self._unread -= tag in UNREAD

    def handle_data(self, data: str) -> None:
        if self._unread:
            return
        if self._inside:
            self.found[-1].title += data
        else:
            self.found[-1].text += data + " "


def body_of(notebook: NotebookNode) -> str:
    """The cells of a notebook as HTML."""
    exporter = HTMLExporter(template_name="notebook", extra_template_basedirs=[str(HERE / "templates")])
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    body: str = exporter.from_notebook_node(notebook)[0]
    return body


def body_of_text(markdown: str) -> str:
    """Markdown as HTML, by the same rules as a notebook's."""
    return body_of(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(markdown)]))


def code_css() -> str:
    """The colours of code, for light and dark."""
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=style) for style in ("default", "github-dark"))
    return f"{light.get_style_defs('.highlight')}\n{dark.get_style_defs('[data-theme=dark] .highlight')}"


def write(folder: Path, menu: Mapping[str, Sequence[Page]], **shared: Any) -> None:
    """Write all pages: those of the menu, in its order.

    Args:
        shared: what the template shows on every page: ``built``, ``repository`` and ``binder``.
    """
    loader = jinja2.FileSystemLoader(HERE / "templates")
    template = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined).get_template("page.html.j2")
    pages = [page for part in menu.values() for page in part]
    sources = {page.source: page for page in pages if page.source}
    for page in pages:
        page.body = _linked(page, sources, shared["repository"])
        part = next(part for part in menu.values() if page in part)
        at = part.index(page)
        text = template.render(
            page=page,
            root="../" * page.place.count("/"),
            menu=menu,
            before=part[at - 1] if page.notebook and at else None,
            after=part[at + 1] if page.notebook and at + 1 < len(part) else None,
            **shared,
        )
        path = folder / page.place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _linked(page: Page, sources: Mapping[str, Page], repository: str) -> str:
    """The body, in which a link to a source of a page leads to the page, and one to another file to the repository."""

    def turned(found: re.Match[str]) -> str:
        head, quote, link, rest = found.groups()
        if not link or ":" in link:
            return found[0]
        source = posixpath.normpath(posixpath.join(posixpath.dirname(page.source), link))
        if source in sources:
            link = posixpath.relpath(sources[source].place, posixpath.dirname(page.place) or ".")
            rest = sources[source].anchors.get(rest.lower(), rest)
        elif repository:
            link = f"https://github.com/{repository}/blob/HEAD/{source}"
        else:
            return head.replace("href=", "data-source=") + f"{quote}{source}{quote}"
        return f"{head}{quote}{link}{rest}{quote}"

    return LINK.sub(turned, page.body)
