"""Tables: known data sets and CSV files, in raw units and encoded."""
