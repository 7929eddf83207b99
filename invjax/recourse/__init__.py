"""Rows of a table in, tables of changes out: the job of ``invjax explain``, as functions.

data = load_tabular("housing")
chosen = classifier(data, "mlp")
explanation = explain_rows(data, chosen.model, slice(0, 10), target="price >= median")
print(text_table(explanation.lines()))
"""

from __future__ import annotations

from invjax.recourse.answers import Explanation as Explanation
from invjax.recourse.answers import Person as Person
from invjax.recourse.answers import Step as Step
from invjax.recourse.classifiers import Chosen as Chosen
from invjax.recourse.classifiers import classifier as classifier
from invjax.recourse.plausible import Plausibility as Plausibility
from invjax.recourse.plausible import plausibility_of as plausibility_of
from invjax.recourse.rows import explain_rows as explain_rows
from invjax.recourse.rows import freeze as freeze
from invjax.recourse.wording import Change as Change
