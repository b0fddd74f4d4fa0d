"""What every command needs: errors, files, paths, settings, surroundings, drawing."""
