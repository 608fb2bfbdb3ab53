"""The interactive explorer: any image, any network, maps and gates."""
