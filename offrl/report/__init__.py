"""A run or a dataset as one HTML page that needs nothing beside itself: to read, to keep, to send."""

from offrl.report.dataset_page import write_dataset_page as write_dataset_page
from offrl.report.page import write_report as write_report
