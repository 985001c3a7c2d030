<?php echo "peer=" . $_SERVER["REMOTE_ADDR"];
