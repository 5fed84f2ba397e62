"""Jobs on Google's machines: a program of scripts/ as a CustomJob of Vertex AI, checked before anything is sent."""
