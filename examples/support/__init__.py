"""What the example programs share: data, a run that can be killed and goes on, tables and curves."""
