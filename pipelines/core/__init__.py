"""The engine that every pipeline shares: manifest, plan, deal, parts, ledger, task, merge, progress."""
