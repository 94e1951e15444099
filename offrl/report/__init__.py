"""A run as one HTML page that needs nothing beside itself: to read, to keep, to send."""

from offrl.report.page import write_report as write_report
