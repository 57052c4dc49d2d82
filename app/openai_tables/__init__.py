"""What is kept of OpenAI's surface: apart from its rules, since workers load it too."""
