"""Tables, figures and progress bars of a run; facts are computed apart from their drawing."""
