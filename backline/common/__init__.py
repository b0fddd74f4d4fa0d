"""What every command needs: errors, files, settings."""
