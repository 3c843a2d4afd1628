"""The overview of a batch: one page that holds all its pictures, what failed first, then what stands out."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path

from .batch_strip import CHANGE_PERCENT, PICTURES, SIDE, STRIP_FILE
from .batch_table import DONE, FAILED, TABLE_FILE, WAITING, Row, worst_first
from .imageio import complete_file
from .outputs import FIGURE_FILE
from .report_style import NOTICE

OVERVIEW_FILE = "overview.html"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ margin: 2rem auto; max-width: {width}px; padding: 0 1rem; background: #fff; color: #1b1f24;
  font: 14px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
h1 {{ font-size: 1.5rem; margin: 0; }}
h2 {{ font-size: 1rem; margin: 0; overflow-wrap: anywhere; }}
p {{ margin: .3rem 0; }}
.faint {{ color: #57606a; }}
.subject, .heads {{ display: grid; grid-template-columns: 240px {pictures}px; column-gap: 1.2rem; }}
.subject {{ padding: .9rem 0; border-top: 1px solid #d0d7de; break-inside: avoid; }}
.heads {{ position: sticky; top: 0; background: #fff; padding: .6rem 0; margin-top: 1rem; }}
.heads div {{ display: grid; grid-template-columns: repeat({count}, 1fr); text-align: center; font-weight: 600; }}
.heads small {{ display: block; font-weight: 400; color: #57606a; }}
.status {{ display: inline-block; padding: 0 .5rem; border-radius: .6rem; background: #dafbe1; color: #0f5323; }}
.failed .status {{ background: #ffebe9; color: #a40e26; }}
.look .status {{ background: #fff1c2; color: #6a4600; }}
.waiting .status {{ background: #eaeef2; color: #424a53; }}
.error {{ color: #a40e26; }}
img {{ display: block; width: {pictures}px; height: {side}px; }}
ul {{ margin: .4rem 0 0; padding-left: 1.1rem; }}
@media print {{ body {{ margin: 0; }} .heads {{ position: static; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{counts}</p>
<p class="faint">The middle slice of each subject's signal. All numbers: {table}. {notice}</p>
<div class="heads"><span></span><div>{heads}</div></div>
{subjects}
</body>
</html>
"""
_SUBJECT = """<div class="subject {kind}">
<div>
<h2>{name}</h2>
<p><span class="status">{status}</span></p>
{facts}
</div>
<div>
{picture}
{words}
</div>
</div>"""


def write_overview(folder: Path, rows: Sequence[Row], title: str) -> Path:
    """Write `OVERVIEW_FILE`, which needs no other file and no network.

    Args:
        folder: of the batch; pictures are taken from the subjects' folders.
        rows: of all subjects.
        title: of the page.

    Raises:
        OutputError: the file cannot be written.
    """
    page = _PAGE.format(
        title=escape(title),
        width=240 + 20 + len(PICTURES) * SIDE,
        pictures=len(PICTURES) * SIDE,
        side=SIDE,
        count=len(PICTURES),
        counts=escape(count_words(rows)),
        table=TABLE_FILE,
        notice=NOTICE,
        heads="".join(f"<span>{escape(name)}<small>{_unit(name)}</small></span>" for name in PICTURES),
        subjects="\n".join(_subject(folder, row) for row in worst_first(rows)),
    )
    with complete_file(folder / OVERVIEW_FILE) as partial:
        partial.write_text(page, encoding="utf-8")
    return folder / OVERVIEW_FILE


def count_words(rows: Sequence[Row]) -> str:
    """How many subjects of a batch are done, to be looked at, failed, and left."""
    done, failed, left = (sum(row.status == status for row in rows) for status in (DONE, FAILED, WAITING))
    parts = [f"{done} done" + (f" ({flagged} to look at closely)" if (flagged := sum(map(_stands_out, rows))) else "")]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{left} not run"] if left else []
    return f"{len(rows)} subject{'s' if len(rows) != 1 else ''}: {', '.join(parts)}."


def _stands_out(row: Row) -> bool:
    return row.status == DONE and bool(row.flags)


def _unit(picture: str) -> str:
    return f"&plusmn; {CHANGE_PERCENT:g} % of the range" if picture == "Result - input" else "&nbsp;"


def _subject(folder: Path, row: Row) -> str:
    kind = "look" if _stands_out(row) else {DONE: "done", FAILED: "failed", WAITING: "waiting"}[row.status]
    words = f'<p class="error">{escape(row.error)}</p>' if row.error else _list(row.sentences)
    return _SUBJECT.format(
        kind=kind,
        name=escape(row.subject),
        status="look closely" if kind == "look" else row.status,
        facts="\n".join(f"<p>{fact}</p>" for fact in _facts(folder, row)),
        picture=_picture(folder, row) if row.status == DONE else "",
        words=words if row.status != WAITING else "",
    )


def _facts(folder: Path, row: Row) -> list[str]:
    facts = [escape(flag) for flag in row.flags]
    facts.append(f'<span class="faint">{escape(row.model)} x{row.scale}</span>')
    if row.psnr_db is not None and row.ssim is not None:
        facts.append(f"PSNR {row.psnr_db:.2f} dB ({row.psnr_gain_db:+.2f}), SSIM {row.ssim:.3f} ({row.ssim_gain:+.3f})")
    if row.reference_edge_agreement is not None:
        facts.append(f"Edge agreement of the reference {row.reference_edge_agreement:.2f}")
    if row.seconds is not None:
        memory = "" if row.peak_memory_gb is None else f", {row.peak_memory_gb:.1f} GB"
        facts.append(f'<span class="faint">{row.seconds:.0f} s{memory}</span>')
    if (folder / row.subject / FIGURE_FILE).is_file():
        facts.append(f'<a href="{escape(row.subject)}/{FIGURE_FILE}">Larger</a>')
    return facts


def _picture(folder: Path, row: Row) -> str:
    try:
        data = b64encode((folder / row.subject / STRIP_FILE).read_bytes()).decode("ascii")
    except OSError:
        return '<p class="faint">No pictures: matplotlib was not installed.</p>'
    return f'<img alt="{escape(", ".join(PICTURES))}" src="data:image/jpeg;base64,{data}">'


def _list(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"
