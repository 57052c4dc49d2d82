"""OpenAI's surface: a second face of the same jobs, data sets and artifacts, for clients that know no other."""
