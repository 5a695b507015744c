"""Training runs: configuration, checkpoints, progress, figures and the command line. The core never imports this."""
