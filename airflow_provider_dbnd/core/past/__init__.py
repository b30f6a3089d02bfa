"""Past runs, from the store alone: their records, versions and tags, comparing and replaying them."""
