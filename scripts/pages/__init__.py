"""The pages of docs/experiments that scripts/experiment_pages.py writes: a file each, its function `page` its text."""
