"""What fine-tuning methods cost, measured side by side in one process: suites as data, one runner, tables, figures."""
