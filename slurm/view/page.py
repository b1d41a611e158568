"""The report as one HTML page that needs nothing else: styles and drawings are in it, scripts there are none."""

from __future__ import annotations

from pathlib import Path

from slurm.view import report_course, report_results
from slurm.view.html import escape
from slurm.view.report_data import Report


def page(report: Report) -> str:
    """The page's source."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    parts = [
        report_course.header(report),
        report_results.damaged(report),
        report_course.conservation(report),
        report_course.course(report),
        report_course.speed(report),
        report_results.distributions(report),
        report_results.fields(report),
        report_results.failed(report),
        report_results.provenance(report),
    ]
    name = escape(report.run.id)
    maker = f"voxarray {escape(report.run.plan.voxarray)}"
    foot = f"<footer>Made {escape(report.made)} by {maker} from the run's own files.</footer>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{name} – voxarray</title><style>\n{style}</style></head>\n"
        f"<body><main>\n{chr(10).join(part for part in parts if part)}\n</main>\n{foot}</body></html>\n"
    )
