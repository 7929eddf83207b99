"""Rows of a table in, tables of changes out: the job of ``invjax explain``, as functions.

data = load_tabular("housing")
chosen = classifier(data, "mlp")
explanation = explain_rows(data, chosen.model, slice(0, 10), target="price >= median")
print(text_table(explanation.lines()))
"""

from __future__ import annotations

from invjax.explaining.answers import Explanation as Explanation
from invjax.explaining.answers import Person as Person
from invjax.explaining.answers import Step as Step
from invjax.explaining.classifiers import Chosen as Chosen
from invjax.explaining.classifiers import classifier as classifier
from invjax.explaining.plausible import Plausibility as Plausibility
from invjax.explaining.plausible import plausibility_of as plausibility_of
from invjax.explaining.rows import explain_rows as explain_rows
from invjax.explaining.rows import freeze as freeze
from invjax.explaining.wording import Change as Change
