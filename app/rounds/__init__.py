"""What is kept of federations: apart from their rules, since jobs and workers load it too."""
