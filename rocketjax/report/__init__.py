"""Everything, in forms for people and for other tools."""

from rocketjax.report.formats import FORMATS, export

__all__ = ["FORMATS", "export"]
