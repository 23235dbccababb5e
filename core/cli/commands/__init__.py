"""One module per command; each holds one function whose parameters are the command's arguments and options."""
