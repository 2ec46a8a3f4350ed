# The scripts by name; CONTRIBUTING.md says what they do.
.PHONY: test check demo bench torture fuzz
test check demo bench torture fuzz:
	scripts/$@
