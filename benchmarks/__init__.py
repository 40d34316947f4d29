"""What this project measures about itself, as ratios within one run."""
