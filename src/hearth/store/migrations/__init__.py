"""Alembic's script directory: ``env`` runs the migrations in ``versions`` on the connection it is handed."""
