"""What ``invjax demo`` runs: digits attacked, a table explained, a network retrained; one page of it."""
