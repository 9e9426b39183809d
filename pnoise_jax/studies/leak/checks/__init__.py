"""The checks of an audit: exact checks, orders, interventions, and their tests."""
