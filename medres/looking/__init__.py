"""Looking before training: what this machine can do (doctor), and what a work folder holds (inspect)."""
