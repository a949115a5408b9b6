"""What a person sees of a run: facts as pure data, and their drawing as tables and figures."""
