"""What is tried on a subject: exact checks, orders, interventions, and their tests."""
