"""Tests of cowfs, in folders by layer; those in mount, tools and crash mount for real."""
