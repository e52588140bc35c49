"""Everything, in forms for people and for other tools."""

from rocketjax.report.formats import FORMATS, export
from rocketjax.report.frames import frame, plot_calibration, plot_ranking, plot_risk_coverage
from rocketjax.report.html import write_report
from rocketjax.report.leaderboards import ratings

__all__ = [
    "FORMATS",
    "export",
    "frame",
    "plot_calibration",
    "plot_ranking",
    "plot_risk_coverage",
    "ratings",
    "write_report",
]
