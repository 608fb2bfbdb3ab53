"""Numbers from runs, as frames and arrays: errors, costs, maps, gates."""
