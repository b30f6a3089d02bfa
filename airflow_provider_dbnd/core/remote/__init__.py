"""A task that runs elsewhere: what travels there, how it starts there, and what comes back."""
