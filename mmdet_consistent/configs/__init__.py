"""Our configs for mmengine's pure-Python style; see docs/downstream.md."""
