"""The markdown page of `python -m benchmarks.gpu`, made from the JSON files of its parts."""

from benchmarks.gpu.record import text
from evaluation.render import escape_markdown


def page(machine: str, command: str, date: str, parts: list[dict]) -> str:
    """One section per part, in order: status, seconds, tables, failures, notes, traceback."""
    lines = [
        "# On a GPU",
        "",
        f"{machine}",
        "",
        f"`{command}`, {date}. Times are medians after a warm-up, by CUDA events on a GPU.",
        "",
        "| part | status | s | limit s |",
        "| :-- | :-- | --: | --: |",
    ]
    for part in parts:
        cells = (part["title"], part["status"], part.get("seconds"), part.get("limit_s"))
        lines.append("| " + " | ".join(escape_markdown(text(c)) for c in cells) + " |")
    for part in parts:
        lines += ["", f"## {part['title']}", ""]
        reason = f": {part['reason']}" if part.get("reason") else ""
        lines.append(f"{part['status']}{reason}")
        for table in part.get("tables", []):
            lines += ["", f"**{escape_markdown(table['title'])}**", ""]
            rule = [":--", *["--:"] * (len(table["header"]) - 1)]
            for cells in (table["header"], rule, *table["rows"]):
                shown = cells if cells is rule else [escape_markdown(text(c)) for c in cells]
                lines.append("| " + " | ".join(shown) + " |")
        if part.get("failures"):
            lines += ["", "Failed:", *(f"- {escape_markdown(f)}" for f in part["failures"])]
        if part.get("notes"):
            lines += ["", *(f"- {escape_markdown(n)}" for n in part["notes"])]
        if part.get("traceback"):
            lines += ["", "```", part["traceback"].rstrip(), "```"]
    return "\n".join(lines) + "\n"
