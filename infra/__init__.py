"""The stack, declared in CDK."""
