"""The verbs of the command line, one module a room; medres.cli hangs them up."""
