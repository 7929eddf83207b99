"""Rows of a table in, tables of changes out: what ``invjax explain`` does, as functions.

data = load_tabular("housing").without("B")
chosen = classifier(data, "mlp")
explanation = explain_rows(data, chosen.model, slice(0, 10), target="price >= median")
print(explanation.text())

With a model that has been fitted already, and its DataFrame: :func:`from_predictor`.
"""

from invjax.core.meant import suggest_names
from invjax.recourse.answers import Explanation, FrontierStep, Person
from invjax.recourse.classifiers import TableClassifier, classifier
from invjax.recourse.files import csv_text, read_people
from invjax.recourse.fitted import TablePredictor, table_predictor
from invjax.recourse.frames import TableExplainer, from_predictor
from invjax.recourse.plan import Plan, make_plan
from invjax.recourse.plausible import Plausibility, plausibility_of
from invjax.recourse.rows import explain_rows, freeze
from invjax.recourse.wording import Change

__all__ = [
    "Change",
    "Explanation",
    "FrontierStep",
    "Person",
    "Plan",
    "Plausibility",
    "TableClassifier",
    "TableExplainer",
    "TablePredictor",
    "classifier",
    "csv_text",
    "explain_rows",
    "freeze",
    "from_predictor",
    "make_plan",
    "plausibility_of",
    "read_people",
    "table_predictor",
]

suggest_names(__name__)
