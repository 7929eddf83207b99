"""One self-contained HTML page: no script, no network, readable on a phone, light and dark."""

from invjax.core.meant import suggest_names
from invjax.report.attacks import attack_section
from invjax.report.counterfactuals import counterfactual_section
from invjax.report.page import Picture, Section, write_report

__all__ = ["Picture", "Section", "attack_section", "counterfactual_section", "write_report"]

suggest_names(__name__)
