"""From W&B to tables: the runs of a study, what is left out of them and why."""
